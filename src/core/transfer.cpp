#include "core/transfer.h"

#include <cstring>

namespace moge {

void upload(ExecContext& ctx, const Tensor& to, const void* host) {
  dcheck(to.is_contiguous(), "upload to a strided tensor ", to.str());
  if (ctx.backend)
    ctx.backend->copy_to_device(to.data, host, to.bytes());
  else if (to.bytes() > 0)
    std::memcpy(to.data, host, static_cast<size_t>(to.bytes()));
}

void download(ExecContext& ctx, void* host, const Tensor& from) {
  dcheck(from.is_contiguous(), "download of a strided tensor ", from.str());
  if (ctx.backend) {
    ctx.backend->copy_to_host(host, from.data, from.bytes());
    ctx.backend->synchronize("download");
  } else if (from.bytes() > 0) {
    std::memcpy(host, from.data, static_cast<size_t>(from.bytes()));
  }
}

void synchronize(ExecContext& ctx, const char* where) {
  if (ctx.backend) ctx.backend->synchronize(where);
}

}  // namespace moge
