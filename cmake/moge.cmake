# Helpers of the build: one library per room, one gtest program per mirrored test folder.

add_library(moge_flags INTERFACE)
target_include_directories(moge_flags INTERFACE ${CMAKE_SOURCE_DIR}/src)
# Designated initialisers leave optional arguments out, hence no -Wmissing-field-initializers.
# -ffp-contract=off: a*b+c may become one fused operation or two depending on inlining; results must
# not depend on that. Kernels that want a fused multiply-add say so with an intrinsic.
target_compile_options(moge_flags INTERFACE -Wall -Wextra -Werror -ffp-contract=off
                                            -Wno-missing-field-initializers)
# The std::stable_sort of Debian 12's libstdc++ calls what C++20 deprecates, and clang 19 says so (GCC PR 110542).
target_compile_options(moge_flags INTERFACE $<$<CXX_COMPILER_ID:Clang>:-Wno-deprecated-declarations>)
target_link_libraries(moge_flags INTERFACE Threads::Threads)
if(MOGE_SANITIZE)
  target_compile_options(moge_flags INTERFACE -fsanitize=${MOGE_SANITIZE} -fno-omit-frame-pointer
                                              -fno-sanitize-recover=all
                                              # GCC warns falsely about what the sanitizers insert
                                              $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
  target_link_options(moge_flags INTERFACE -fsanitize=${MOGE_SANITIZE})
endif()

# moge_room(NAME DEPS room... LIBS external...): the static library moge_NAME from every .cpp of
# src/NAME but main.cpp, linked to exactly the rooms that it may include (docs/design.md has the table).
function(moge_room name)
  cmake_parse_arguments(ARG "" "" "DEPS;LIBS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${name}/*.cpp)
  list(FILTER sources EXCLUDE REGEX "/main\\.cpp$")
  list(TRANSFORM ARG_DEPS PREPEND moge_)
  add_library(moge_${name} STATIC ${sources})
  target_link_libraries(moge_${name} PUBLIC moge_flags ${ARG_DEPS} PRIVATE ${ARG_LIBS})
endfunction()

# moge_unoptimised(TARGET): of a Debug build (the sanitizers'), where the rooms are optimised because tests would take minutes
# longer. What this target does itself takes little, and clang compiles it in half of the time.
function(moge_unoptimised target)
  target_compile_options(${target} PRIVATE $<$<CONFIG:Debug>:-O0>)
endfunction()

# moge_install(TARGET): to bin/, with the shared libraries that it needs in lib/, except those that every machine with a
# C++ runtime has: the installed folder can be carried to a machine where nothing is installed.
function(moge_install target)
  set_target_properties(${target} PROPERTIES INSTALL_RPATH "$ORIGIN/../lib")
  install(TARGETS ${target}
          RUNTIME_DEPENDENCIES
            DIRECTORIES /usr/lib/${CMAKE_LIBRARY_ARCHITECTURE}
            PRE_EXCLUDE_REGEXES "^lib(c|m|gcc_s|stdc\\+\\+|pthread|dl|rt)\\.so" "^ld-linux"
          RUNTIME DESTINATION bin LIBRARY DESTINATION lib)
endfunction()

# moge_exports(TARGET): an executable that may open the GPU plugin. The plugin finds core and ops in it, so all of them must
# be there and visible.
function(moge_exports target)
  set_target_properties(${target} PROPERTIES ENABLE_EXPORTS ON
                        LINK_LIBRARY_OVERRIDE "WHOLE_ARCHIVE,moge_core,moge_ops")
endfunction()

# moge_test(NAME DEPS target...): the gtest program test_NAME from every *_test.cpp of tests/NAME.
function(moge_test name)
  cmake_parse_arguments(ARG "" "" "DEPS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${name}/*_test.cpp)
  add_executable(test_${name} ${sources})
  target_link_libraries(test_${name} PRIVATE ${ARG_DEPS} GTest::gtest_main)
  target_include_directories(test_${name} PRIVATE ${CMAKE_SOURCE_DIR}/tests)
  target_compile_definitions(test_${name} PRIVATE MOGE_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  moge_unoptimised(test_${name})
  gtest_discover_tests(test_${name} TEST_PREFIX "${name}." DISCOVERY_TIMEOUT 60)
endfunction()
