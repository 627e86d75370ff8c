#include "ops/token_layer.h"

#include "core/match.h"

namespace moge::ops {

bool has_token_layer(const ExecContext& ctx, const TokenLayer& a) {
  const OpTable<TokenLayer>& table = token_layer_table();
  const ForcedImpl& forced = forced_impl(table.op);
  const bool any = forced.name.empty() || forced.if_there_is;
  if (!any && forced.name == "none") return false;
  bool known = any;
  for (const Impl<TokenLayer>& impl : table.impls) {
    if (!any && forced.name != impl.name) continue;
    known = true;
    if (impl.device != ctx.device.kind) continue;
    const Refusal refusal = impl.supports(a);
    if (refusal.empty()) return true;
    if (verbose_dispatch()) log_dispatch(str(table.op, ": ", impl.name, " refused: ", refusal));
  }
  if (!known) throw_unsupported(table.op, {str(forced.name, ": expected an implementation, or none")});
  return false;
}

void token_layer(ExecContext& ctx, const TokenLayer& a) {
  const char* op = "token_layer";
  Dim T("T", 1), D("D"), A("A"), N("N"), E("E"), F("F"), F2("2 F"), SF("SF"), SF2("2 SF");
  match(op, "x", a.x, {T, D}, DType::kF32);
  match(op, "attn_out", a.attn_out, {T, A}, DType::kBF16);
  match(op, "o_proj", a.o_proj, {D, A}, DType::kI8);
  match(op, "o_scale", a.o_scale, {D}, DType::kF32);
  if (a.o_bias) match(op, "o_bias", a.o_bias, {D}, DType::kF32);
  match(op, "norm", a.norm, {D}, DType::kF32);
  match(op, "gate", a.gate, {E, D}, DType::kF32);
  if (a.router_scale) match(op, "router_scale", a.router_scale, {E}, DType::kF32);
  match(op, "gate_up", a.gate_up, {E, F2, D}, DType::kI8);
  match(op, "gate_up_scale", a.gate_up_scale, {E, F2}, DType::kF32);
  match(op, "down", a.down, {E, D, F}, DType::kI8);
  match(op, "down_scale", a.down_scale, {E, D}, DType::kF32);
  match(op, "next_norm", a.next_norm, {D}, DType::kF32);
  const auto check_widths = [&](const Tensor& gate_up, const Tensor& down) {
    check<ShapeError>(gate_up.dim(-2) == 2 * down.dim(-1), op, ": gate_up ", gate_up.str(), " and down ",
                      down.str(), ": expected twice as many rows as columns");
  };
  check_widths(a.gate_up, a.down);
  const bool shared = bool(a.shared_gate_up);
  check<ShapeError>(shared == bool(a.shared_gate_up_scale) && shared == bool(a.shared_down) &&
                        shared == bool(a.shared_down_scale),
                    op, ": the shared experts' weights and scales come together");
  if (shared) {
    match(op, "shared_gate_up", a.shared_gate_up, {SF2, D}, DType::kI8);
    match(op, "shared_gate_up_scale", a.shared_gate_up_scale, {SF2}, DType::kF32);
    match(op, "shared_down", a.shared_down, {D, SF}, DType::kI8);
    match(op, "shared_down_scale", a.shared_down_scale, {D}, DType::kF32);
    check_widths(a.shared_gate_up, a.shared_down);
  }
  check<ShapeError>(bool(a.next_qkv) != bool(a.normed), op, ": expected one of next_qkv and normed");
  check<ShapeError>(bool(a.next_qkv) == bool(a.qkv) && bool(a.qkv) == bool(a.next_scale), op,
                    ": next_qkv, next_scale and qkv come together");
  if (a.next_qkv) {
    match(op, "next_qkv", a.next_qkv, {N, D}, DType::kI8);
    match(op, "next_scale", a.next_scale, {N}, DType::kF32);
    match(op, "qkv", a.qkv, {T, N}, DType::kBF16);
  }
  check<ShapeError>(a.next_qkv || !a.next_bias, op, ": next_bias without next_qkv");
  if (a.next_bias) match(op, "next_bias", a.next_bias, {N}, DType::kF32);
  if (a.normed) match(op, "normed", a.normed, {T, D}, DType::kBF16);
  const int64_t experts = a.gate.dim(0);
  check<ShapeError>(a.num_groups > 0 && experts % a.num_groups == 0 && a.experts_per_token > 0 &&
                        a.experts_per_token <= experts && a.experts_per_token % a.num_groups == 0,
                    op, ": ", experts, " experts, ", a.experts_per_token, " a token: expected multiples of ",
                    a.num_groups, " groups");
  dispatch(ctx, token_layer_table(), a);
}

OpTable<TokenLayer>& token_layer_table() {
  static OpTable<TokenLayer> table{"token_layer", {}};
  return table;
}

}  // namespace moge::ops
