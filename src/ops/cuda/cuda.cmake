# libmoge_cuda.so: core/cuda and ops/cuda, opened at run time (core/backend.cpp). It links nothing of ours: what it needs
# of core and ops it finds in the program that opens it (moge_exports in cmake/moge.cmake).
file(GLOB moge_cuda_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/*.cu ${CMAKE_CURRENT_LIST_DIR}/sm90/*.cu
     ${CMAKE_CURRENT_LIST_DIR}/*.cpp ${CMAKE_CURRENT_LIST_DIR}/sm90/*.cpp ${CMAKE_CURRENT_SOURCE_DIR}/core/cuda/*.cpp
     ${CMAKE_CURRENT_SOURCE_DIR}/core/cuda/*.cu)
add_library(moge_cuda MODULE ${moge_cuda_sources})
find_package(CUDAToolkit REQUIRED)
# CMake 3.25 does not know how to ask this nvcc for C++20.
set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
target_include_directories(moge_cuda PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
# cudart is linked statically, so that the plugin runs where only the driver is installed; libcuda never is: driver
# functions come through cudaGetDriverEntryPointByVersion.
target_link_libraries(moge_cuda PRIVATE CUDA::cudart_static Threads::Threads)
target_compile_options(moge_cuda PRIVATE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Werror -Wno-missing-field-initializers>
  $<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr -lineinfo -Xcompiler=-Wall,-Wextra,-Wno-missing-field-initializers>)
set_target_properties(moge_cuda PROPERTIES PREFIX "lib" CXX_VISIBILITY_PRESET hidden CUDA_VISIBILITY_PRESET hidden
  CUDA_ARCHITECTURES 90a-real CUDA_STANDARD 20 CUDA_RUNTIME_LIBRARY Static
  LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib/moge)
install(TARGETS moge_cuda LIBRARY DESTINATION lib/moge)
