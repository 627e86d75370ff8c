#include "sim/calibrate.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "core/error.h"

namespace moge::sim {

namespace {

using Vector = std::vector<double>;
/// Of the fitted constants; only the first n of each matter.
using Row = std::array<double, kMaxFitted>;
using Matrix = std::array<Row, kMaxFitted>;

std::vector<const ConstantField*> fitted_fields(const Calibration& calibration) {
  std::vector<const ConstantField*> fields;
  for (const ConstantField& field : constant_fields())
    if ((calibration.*field.member).fitted()) fields.push_back(&field);
  return fields;
}

/// The residuals of rows and priors, each in its standard deviations.
class Problem {
 public:
  Problem(const spec::Hardware& hardware, const Calibration& start, const std::vector<Observation>& rows)
      : hardware_(hardware), start_(start), rows_(rows), fields_(fitted_fields(start)) {}

  size_t size() const { return fields_.size(); }
  Vector start() const {
    Vector x;
    for (const ConstantField* field : fields_) x.push_back(std::log((start_.*field->member).prior));
    return x;
  }
  Calibration at(const Vector& x) const {
    Calibration c = start_;
    for (size_t i = 0; i < size(); ++i)
      (c.*fields_[i]->member).value = std::clamp(std::exp(x[i]), fields_[i]->min, fields_[i]->max);
    return c;
  }
  Vector residuals(const Vector& x) const {
    const Calibration c = at(x);
    Vector r;
    for (const Observation& row : rows_)
      r.push_back(std::log(predict(hardware_, c, row) / row.measured_s) / kRowSigma);
    for (size_t i = 0; i < size(); ++i) {
      const Constant& constant = c.*fields_[i]->member;
      r.push_back((x[i] - std::log(constant.prior)) / constant.spread);
    }
    return r;
  }

 private:
  const spec::Hardware& hardware_;
  const Calibration& start_;
  const std::vector<Observation>& rows_;
  std::vector<const ConstantField*> fields_;
};

double squares(const Vector& r) {
  double sum = 0;
  for (const double x : r) sum += x * x;
  return sum;
}

/// Solves the symmetric positive system a x = b of n unknowns, by elimination.
Row solve(Matrix a, Row b, size_t n) {
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = i + 1; j < n; ++j) {
      const double f = a[j][i] / a[i][i];
      for (size_t k = i; k < n; ++k) a[j][k] -= f * a[i][k];
      b[j] -= f * b[i];
    }
  }
  for (size_t i = n; i-- > 0;) {
    for (size_t k = i + 1; k < n; ++k) b[i] -= a[i][k] * b[k];
    b[i] /= a[i][i];
  }
  return b;
}

/// d residuals / d x, central differences.
std::vector<Vector> jacobian(const Problem& problem, const Vector& x) {
  constexpr double kStep = 1e-4;
  std::vector<Vector> columns;
  for (size_t i = 0; i < x.size(); ++i) {
    Vector up = x;
    Vector down = x;
    up[i] += kStep;
    down[i] -= kStep;
    Vector column = problem.residuals(up);
    const Vector low = problem.residuals(down);
    for (size_t r = 0; r < column.size(); ++r) column[r] = (column[r] - low[r]) / (2 * kStep);
    columns.push_back(column);
  }
  return columns;
}

}  // namespace

double predict(const spec::Hardware& hardware, const Calibration& calibration, const Observation& row) {
  const Device device = make_device(hardware, calibration);
  const PlanSearch search = row.plan ? PlanSearch(row.model, device, row.precision, row.devices, *row.plan)
                                     : PlanSearch(row.model, device, row.precision, row.devices);
  return search.fastest(row.load, row.cached_requests, row.cached_positions).seconds;
}

Calibration fit(const spec::Hardware& hardware, const Calibration& start,
                const std::vector<Observation>& rows) {
  constexpr int kMaxIterations = 200;
  constexpr double kMaxDamping = 1e12;
  constexpr double kConverged = 1e-10;
  const Problem problem(hardware, start, rows);
  check<UsageError>(!rows.empty(), "no rows to fit ", start.hardware, " to");
  check<UsageError>(problem.size() >= 1 && problem.size() <= kMaxFitted, "the calibration of ",
                    start.hardware, " has ", problem.size(), " fitted constants, expected from 1 to ",
                    kMaxFitted);
  Vector x = problem.start();
  Vector r = problem.residuals(x);
  double damping = 1e-3;
  for (int iteration = 0; iteration < kMaxIterations && damping < kMaxDamping; ++iteration) {
    const std::vector<Vector> columns = jacobian(problem, x);
    const size_t n = x.size();
    Matrix normal{};
    Row gradient{};
    for (size_t i = 0; i < n; ++i) {
      for (size_t k = 0; k < r.size(); ++k) gradient[i] -= columns[i][k] * r[k];
      for (size_t j = 0; j < n; ++j)
        for (size_t k = 0; k < r.size(); ++k) normal[i][j] += columns[i][k] * columns[j][k];
    }
    for (; damping < kMaxDamping; damping *= 10) {
      Matrix damped = normal;
      for (size_t i = 0; i < n; ++i) damped[i][i] *= 1 + damping;
      const Row move = solve(damped, gradient, n);
      Vector next = x;
      for (size_t i = 0; i < n; ++i) next[i] += move[i];
      const Vector next_r = problem.residuals(next);
      if (squares(next_r) >= squares(r)) continue;
      const bool converged = squares(r) - squares(next_r) < kConverged * squares(r);
      x = next;
      r = next_r;
      damping /= 10;
      if (converged) damping = kMaxDamping;
      break;
    }
  }
  Calibration fitted = problem.at(x);
  fitted.rows.clear();
  for (const Observation& row : rows) fitted.rows.push_back(row.id);
  return fitted;
}

ErrorSummary summary(const std::vector<RowError>& rows, bool held_out) {
  ErrorSummary s;
  double count = 0;
  for (const RowError& row : rows) {
    if (row.held_out != held_out) continue;
    s.mean += std::abs(row.error());
    s.max = std::max(s.max, std::abs(row.error()));
    ++count;
  }
  s.mean /= std::max(1.0, count);
  return s;
}

std::vector<RowError> errors(const spec::Hardware& hardware, const Calibration& calibration,
                             const std::vector<Observation>& rows, const std::vector<std::string>& held_out) {
  std::vector<RowError> all;
  for (const Observation& row : rows)
    all.push_back({row.id, row.measured_s, predict(hardware, calibration, row),
                   std::ranges::find(held_out, row.id) != held_out.end()});
  return all;
}

std::vector<RowError> leave_one_out(const spec::Hardware& hardware, const Calibration& start,
                                    const std::vector<Observation>& rows) {
  std::vector<RowError> all;
  for (const Observation& left_out : rows) {
    std::vector<Observation> others;
    for (const Observation& row : rows)
      if (row.id != left_out.id) others.push_back(row);
    const Calibration fitted = fit(hardware, start, others);
    all.push_back({left_out.id, left_out.measured_s, predict(hardware, fitted, left_out), true});
  }
  return all;
}

}  // namespace moge::sim
