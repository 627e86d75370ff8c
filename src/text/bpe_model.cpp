#include "text/bpe_model.h"

#include <algorithm>
#include <bit>

#include "core/error.h"
#include "text/byte_level.h"
#include "text/utf8.h"

namespace moge::text {
namespace {

constexpr size_t kMaxPieceBytes = size_t{1} << 30;  // positions are int32

}  // namespace

MergeTable::MergeTable(size_t num_merges)
    : slots_(std::bit_ceil(2 * num_merges + 2)),
      mask_(slots_.size() - 1),
      shift_(64 - std::countr_zero(slots_.size())) {}

void MergeTable::insert(int32_t left, int32_t right, Merge merge) {
  const uint64_t key = pack(left, right);
  size_t i = slot(key);
  while (slots_[i].key != key && slots_[i].key != kEmpty) i = (i + 1) & mask_;
  slots_[i] = {key, merge};
}

BpeModel::BpeModel(BpeModelSpec spec, bool byte_level, const std::string& where)
    : spec_(std::move(spec)), byte_level_(byte_level), merges_(spec_.merges.size()) {
  check<FileError>(!spec_.vocab.empty(), where, ": the vocabulary is empty");
  ids_.reserve(spec_.vocab.size());
  for (const auto& [piece, id] : spec_.vocab) {
    // A few ids may be held by added tokens, but a table by id must not be sized by one mad number.
    const size_t limit = 2 * spec_.vocab.size() + (1 << 16);
    check<FileError>(id >= 0 && static_cast<size_t>(id) < limit, where, ": token \"", piece, "\" has id ", id,
                     ", expected 0..", limit - 1);
    check<FileError>(ids_.emplace(piece, id).second, where, ": token \"", piece, "\" is there twice");
    max_id_ = std::max(max_id_, id);
  }
  std::vector<bool> seen(static_cast<size_t>(max_id_) + 1);
  for (const auto& [piece, id] : spec_.vocab) {
    check<FileError>(!seen[static_cast<size_t>(id)], where, ": id ", id,
                     " is given to two tokens, one of them \"", piece, '"');
    seen[static_cast<size_t>(id)] = true;
  }
  const auto id_of = [&](const std::string& piece) -> int32_t {
    const auto found = ids_.find(piece);
    return found == ids_.end() ? -1 : found->second;
  };
  uint32_t rank = 0;
  for (const auto& [left, right] : spec_.merges) {
    const int32_t left_id = id_of(left);
    const int32_t right_id = id_of(right);
    const int32_t merged_id = id_of(left + right);
    check<FileError>(left_id >= 0 && right_id >= 0 && merged_id >= 0, where, ": merge ", rank, " (\"", left,
                     "\" + \"", right, "\"): \"",
                     left_id < 0    ? left
                     : right_id < 0 ? right
                                    : left + right,
                     "\" is not in the vocabulary");
    merges_.insert(left_id, right_id, {rank++, merged_id});
  }
  spec_.merges = {};  // they live in the table
  for (int byte = 0; byte < 256; ++byte) {
    const auto b = static_cast<size_t>(byte);
    std::string name;
    if (byte_level_) {
      append_utf8(byte_level_alphabet()[b], name);
    } else if (spec_.byte_fallback) {
      name = byte_token(byte);
    }
    byte_ids_[b] = id_of(name);
  }
  if (spec_.unk_token) {
    unk_id_ = id_of(*spec_.unk_token);
    check<FileError>(*unk_id_ >= 0, where, ": unk_token \"", *spec_.unk_token, "\" is not in the vocabulary");
  }
  if (spec_.ignore_merges) {
    for (const auto& [piece, id] : spec_.vocab) {
      const std::optional<std::string> bytes = byte_level_ ? byte_level_decode(piece) : piece;
      if (bytes) whole_pieces_.emplace(*bytes, id);
    }
  }
}

std::optional<int32_t> BpeModel::piece_to_id(std::string_view piece) const {
  const auto found = ids_.find(std::string(piece));
  if (found == ids_.end()) return std::nullopt;
  return found->second;
}

void BpeModel::encode(std::string_view piece, BpeScratch& scratch, std::vector<int32_t>& ids) const {
  const bool cached = PieceCache::can_hold(piece);
  if (cached) {
    const std::span<const int32_t> known = scratch.cache_.find(piece);
    if (!known.empty()) {
      ids.insert(ids.end(), known.begin(), known.end());
      return;
    }
  }
  check<RequestError>(piece.size() <= kMaxPieceBytes, "cannot encode ", piece.size(),
                      " bytes without a break, expected at most ", kMaxPieceBytes);
  if (spec_.ignore_merges) {
    const auto whole = whole_pieces_.find(std::string(piece));
    if (whole != whole_pieces_.end()) {
      ids.push_back(whole->second);
      if (cached) scratch.cache_.insert(piece, {&whole->second, 1});
      return;
    }
  }
  scratch.symbols_.clear();
  add_initial_symbols(piece, scratch);
  merge(scratch);
  const size_t first = ids.size();
  for (const BpeScratch::Symbol& symbol : scratch.symbols_)
    if (symbol.id >= 0) ids.push_back(symbol.id);
  if (cached) scratch.cache_.insert(piece, std::span(ids).subspan(first));
}

void BpeModel::add_initial_symbols(std::string_view piece, BpeScratch& scratch) const {
  if (byte_level_) {
    for (const char byte : piece) {
      const int32_t id = byte_ids_[static_cast<uint8_t>(byte)];
      if (id >= 0) {
        scratch.symbols_.push_back({id, 0, 0});
      } else {
        add_character({&byte, 1}, scratch);
      }
    }
    return;
  }
  while (!piece.empty()) {
    const Utf8Step step = utf8_step(piece);
    add_character(piece.substr(0, static_cast<size_t>(step.length)), scratch);
    piece.remove_prefix(static_cast<size_t>(step.length));
  }
}

void BpeModel::add_character(std::string_view character, BpeScratch& scratch) const {
  std::vector<BpeScratch::Symbol>& symbols = scratch.symbols_;
  const std::optional<int32_t> id = byte_level_ ? std::nullopt : piece_to_id(character);
  if (id) {
    symbols.push_back({*id, 0, 0});
    return;
  }
  const auto has_byte = [&](char byte) { return byte_ids_[static_cast<uint8_t>(byte)] >= 0; };
  if (spec_.byte_fallback && !byte_level_ && std::all_of(character.begin(), character.end(), has_byte)) {
    for (const char byte : character) symbols.push_back({byte_ids_[static_cast<uint8_t>(byte)], 0, 0});
    return;
  }
  if (!unk_id_) return;
  if (spec_.fuse_unk && !symbols.empty() && symbols.back().id == *unk_id_) return;
  symbols.push_back({*unk_id_, 0, 0});
}

void BpeModel::merge(BpeScratch& scratch) const {
  std::vector<BpeScratch::Symbol>& symbols = scratch.symbols_;
  std::vector<BpeScratch::Candidate>& heap = scratch.heap_;
  using Candidate = BpeScratch::Candidate;
  const auto later = [](const Candidate& a, const Candidate& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.position > b.position;
  };
  const auto num_symbols = static_cast<int32_t>(symbols.size());
  const auto candidate = [&](int32_t left) -> std::optional<Candidate> {
    const int32_t right = symbols[static_cast<size_t>(left)].next;
    if (right >= num_symbols) return std::nullopt;
    const MergeTable::Merge* merge =
        merges_.find(symbols[static_cast<size_t>(left)].id, symbols[static_cast<size_t>(right)].id);
    if (merge == nullptr) return std::nullopt;
    return Candidate{merge->rank, left, merge->id};
  };
  heap.clear();
  for (int32_t i = 0; i < num_symbols; ++i) {
    symbols[static_cast<size_t>(i)].previous = i - 1;
    symbols[static_cast<size_t>(i)].next = i + 1;
  }
  for (int32_t i = 0; i < num_symbols; ++i)
    if (const auto found = candidate(i)) heap.push_back(*found);
  std::make_heap(heap.begin(), heap.end(), later);
  const auto push = [&](int32_t left) {
    const auto found = candidate(left);
    if (!found) return;
    heap.push_back(*found);
    std::push_heap(heap.begin(), heap.end(), later);
  };
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), later);
    const Candidate best = heap.back();
    heap.pop_back();
    BpeScratch::Symbol& left = symbols[static_cast<size_t>(best.position)];
    if (left.id < 0) continue;
    // Stale if a neighbour has changed since: the pair of today must be the one that was queued.
    const auto today = candidate(best.position);
    if (!today || today->rank != best.rank) continue;
    BpeScratch::Symbol& right = symbols[static_cast<size_t>(left.next)];
    left.id = best.id;
    left.next = right.next;
    right.id = -1;
    if (left.next < num_symbols) symbols[static_cast<size_t>(left.next)].previous = best.position;
    if (left.previous >= 0) push(left.previous);
    push(best.position);
  }
}

}  // namespace moge::text
