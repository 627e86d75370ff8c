#include "core/device_search.h"

#include <gtest/gtest.h>

namespace moge {
namespace {

TEST(DeviceRefusal, TellsWhatIsWrong) {
  DeviceSearch found{.driver_too_old = true, .runtime_version = 13020};
  EXPECT_EQ(device_refusal(found), "no NVIDIA driver here: CUDA finds no libcuda.so.1");
  found.driver_version = 11080;
  EXPECT_EQ(device_refusal(found), "the NVIDIA driver supports CUDA 11.8: expected at least 13.2");
  // Newer than the runtime, or older and taken by it all the same.
  found.driver_too_old = false;
  found.count = 2;
  EXPECT_EQ(device_refusal(found), "");
  found.index = 2;
  EXPECT_EQ(device_refusal(found), "GPU 2: this machine has 2");
  found.index = -1;
  EXPECT_EQ(device_refusal(found), "GPU -1: this machine has 2");
  found.index = 1;
  DeviceInfo gpu{.name = "NVIDIA A100", .capability = "8.0"};
  found.gpu = &gpu;
  EXPECT_EQ(device_refusal(found),
            "GPU 1, NVIDIA A100: compute capability 8.0; the kernels are for Hopper, 9.0");
  gpu.capability = "9.0";
  EXPECT_EQ(device_refusal(found), "");
}

}  // namespace
}  // namespace moge
