#include "ops/cpu/decode_inputs.h"

#include "ops/cpu/isa.h"
#include "ops/cpu/rows.h"

namespace moge::ops::cpu {

namespace {

void run(ExecContext&, const DecodeInputs& a, std::span<std::byte>) {
  const int64_t B = a.kv_lens.dim(0), MP = a.block_table.dim(1);
  const int32_t PS = a.page_size;
  const Rows<int32_t> kv_lens(a.kv_lens), positions(a.positions), slots(a.slots), table(a.block_table),
      counts(a.output_counts), tokens(a.tokens);
  const Rows<int64_t> steps(a.steps);
  for (int64_t b = 0; b < B; ++b) {
    if (*kv_lens[b] < 0) {
      *positions[b] = 0;
      *slots[b] = -1;
      continue;
    }
    const int32_t position = (*kv_lens[b])++;
    check<ShapeError>(position / PS < MP, "decode_inputs: kv_lens[", b, "]: expected below ", MP * PS,
                      " (its pages), got ", position);
    const int32_t page = table[b][position / PS];
    check<ShapeError>(page >= 0, "decode_inputs: block_table[", b, ", ", position / PS,
                      "]: expected a page, got ", page);
    *positions[b] = position;
    *slots[b] = page * PS + position % PS;
    if (a.steps) ++*steps[b];
    if (!a.output_counts) continue;
    const int32_t token = *tokens[b];
    check<ShapeError>(token >= 0 && token < a.output_counts.dim(1), "decode_inputs: tokens[", b,
                      "]: expected below V=", a.output_counts.dim(1), ", got ", token);
    ++counts[b][token];
  }
}

}  // namespace

std::vector<Impl<DecodeInputs>> decode_inputs_impls() {
  return {{"cpu.ref", DeviceKind::kCpu, supports_all<DecodeInputs>, run}};
}

}  // namespace moge::ops::cpu
