#include "ops/cuda/sm90/swift_gmm.cuh"

template void moge::ops::cuda::launch_swift_gmm<moge::DType::kBF16>(const ExecContext&, SwiftTile,
                                                                    const SwiftMaps&, const SwiftGmmParams&);
