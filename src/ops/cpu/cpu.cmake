# ops/cpu/*.cpp: the reference loops and drivers, built for the baseline instruction set.
# ops/cpu/vec/*.cpp: the fast paths, each file built once per instruction set into namespace
# moge::ops::cpu::vec::avx2 or ::avx512 (MOGE_ISA) and chosen at run time from cpuid. These files include
# nothing that defines inline functions shared with baseline code (no STL): such a function, compiled with
# AVX-512 and picked by the linker, would crash an older CPU.
file(GLOB moge_ops_cpu CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/*.cpp)
file(GLOB moge_ops_vec CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/vec/*.cpp)
target_sources(moge_ops PRIVATE ${moge_ops_cpu})

function(moge_ops_isa isa)
  add_library(moge_ops_${isa} OBJECT ${moge_ops_vec})
  target_link_libraries(moge_ops_${isa} PRIVATE moge_flags)
  target_compile_definitions(moge_ops_${isa} PRIVATE MOGE_ISA=${isa})
  target_compile_options(moge_ops_${isa} PRIVATE -O3 -fno-math-errno -fno-trapping-math ${ARGN})
  # Loops unrolled over registers, with a check at each access, are what clang takes longest for: 147 s of one file. With -O2,
  # AddressSanitizer's checks as calls, and without three of UndefinedBehaviorSanitizer's that ask of each address, 42.
  if(MOGE_SANITIZE MATCHES "address" AND CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
    target_compile_options(moge_ops_${isa} PRIVATE -O2 "SHELL:-mllvm -asan-instrumentation-with-call-threshold=0"
                                                   -fno-sanitize=pointer-overflow,alignment,null)
  endif()
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU") # warns of uninitialised values inside its own avx512fintrin.h (PR 105593)
    target_compile_options(moge_ops_${isa} PRIVATE -Wno-uninitialized -Wno-maybe-uninitialized)
  endif()
  target_sources(moge_ops PRIVATE $<TARGET_OBJECTS:moge_ops_${isa}>)
endfunction()
moge_ops_isa(avx2 -mavx2 -mfma -mf16c)
# BF16 and VNNI are for intrinsics behind a check of their own: compilers make neither of such loops as these.
moge_ops_isa(avx512 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512bf16 -mavx512vnni -mfma
             -mprefer-vector-width=512)
