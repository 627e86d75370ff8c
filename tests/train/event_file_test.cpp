#include "train/event_file.h"

#include <gtest/gtest.h>

namespace moge::train {
namespace {

TEST(EventFile, ChecksumsAreTFRecords) {
  EXPECT_EQ(crc32c("123456789"), 0xe3069283U);            // the check value of CRC-32C
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aaU);  // RFC 3720, B.4
}

}  // namespace
}  // namespace moge::train
