// The Tensor members of an op's Args. Args are aggregates: their members are counted by how many values
// initialise them, and named by a structured binding of that many.
#pragma once
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#include "core/tensor.h"

namespace moge {

namespace fields {

struct Anything {
  template <class T>
  operator T() const;  // NOLINT(google-explicit-constructor)
};

template <class Args, size_t... I>
constexpr bool takes(std::index_sequence<I...>) {
  return requires {
    Args{(static_cast<void>(I), Anything{})...};
  };
}

template <class Args, size_t N = 1>
constexpr size_t count() {
  if constexpr (takes<Args>(std::make_index_sequence<N + 1>{}))
    return count<Args, N + 1>();
  else
    return N;
}

/// References to all members.
template <class Args>
auto tie(Args& args) {
  constexpr size_t n = count<Args>();
  static_assert((n >= 2 && n <= 16) || n == 26, "add a structured binding of this many members");
  if constexpr (n == 2) {
    auto& [a, b] = args;
    return std::tie(a, b);
  } else if constexpr (n == 3) {
    auto& [a, b, c] = args;
    return std::tie(a, b, c);
  } else if constexpr (n == 4) {
    auto& [a, b, c, d] = args;
    return std::tie(a, b, c, d);
  } else if constexpr (n == 5) {
    auto& [a, b, c, d, e] = args;
    return std::tie(a, b, c, d, e);
  } else if constexpr (n == 6) {
    auto& [a, b, c, d, e, f] = args;
    return std::tie(a, b, c, d, e, f);
  } else if constexpr (n == 7) {
    auto& [a, b, c, d, e, f, g] = args;
    return std::tie(a, b, c, d, e, f, g);
  } else if constexpr (n == 8) {
    auto& [a, b, c, d, e, f, g, h] = args;
    return std::tie(a, b, c, d, e, f, g, h);
  } else if constexpr (n == 9) {
    auto& [a, b, c, d, e, f, g, h, i] = args;
    return std::tie(a, b, c, d, e, f, g, h, i);
  } else if constexpr (n == 10) {
    auto& [a, b, c, d, e, f, g, h, i, j] = args;
    return std::tie(a, b, c, d, e, f, g, h, i, j);
  } else if constexpr (n == 11) {
    auto& [a, b, c, d, e, f, g, h, i, j, k] = args;
    return std::tie(a, b, c, d, e, f, g, h, i, j, k);
  } else if constexpr (n == 12) {
    auto& [a, b, c, d, e, f, g, h, i, j, k, l] = args;
    return std::tie(a, b, c, d, e, f, g, h, i, j, k, l);
  } else if constexpr (n == 13) {
    auto& [a, b, c, d, e, f, g, h, i, j, k, l, m] = args;
    return std::tie(a, b, c, d, e, f, g, h, i, j, k, l, m);
  } else if constexpr (n == 14) {
    auto& [a, b, c, d, e, f, g, h, i, j, k, l, m, o] = args;
    return std::tie(a, b, c, d, e, f, g, h, i, j, k, l, m, o);
  } else if constexpr (n == 15) {
    auto& [a, b, c, d, e, f, g, h, i, j, k, l, m, o, p] = args;
    return std::tie(a, b, c, d, e, f, g, h, i, j, k, l, m, o, p);
  } else if constexpr (n == 16) {
    auto& [a, b, c, d, e, f, g, h, i, j, k, l, m, o, p, q] = args;
    return std::tie(a, b, c, d, e, f, g, h, i, j, k, l, m, o, p, q);
  } else {
    auto& [a, b, c, d, e, f, g, h, i, j, k, l, m, o, p, q, r, s, t, u, v, w, x, y, z, last] = args;
    return std::tie(a, b, c, d, e, f, g, h, i, j, k, l, m, o, p, q, r, s, t, u, v, w, x, y, z, last);
  }
}

}  // namespace fields

/// fn(tensor) for each Tensor member, absent ones too.
template <class Args, class Fn>
void for_each_tensor(Args& args, const Fn& fn) {
  std::apply(
      [&](auto&... member) {
        const auto visit = [&](auto& m) {
          if constexpr (std::is_same_v<std::remove_cvref_t<decltype(m)>, Tensor>) fn(m);
        };
        (visit(member), ...);
      },
      fields::tie(args));
}

/// "f32[64, 256], bf16[256, 128]": the Tensor members that are there.
template <class Args>
std::string tensors_text(const Args& args) {
  std::string text;
  for_each_tensor(args, [&](const Tensor& t) {
    if (t) text += (text.empty() ? "" : ", ") + t.str();
  });
  return text;
}

}  // namespace moge
