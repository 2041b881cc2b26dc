// Mean and spread of a set of numbers, mergeable without cancellation.
//
// Merging follows Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for
// computing sample variances" (1979): unlike E[x^2] - mean^2 it stays accurate when the mean is far
// larger than the standard deviation.
#pragma once

#include "core/macros.h"

namespace restorert {

template <typename Real>
struct Moments {
  Real count;  // how many numbers
  Real mean;
  Real m2;  // sum of squared distances from the mean; biased variance = m2 / count
};

// The empty set is {0, 0, 0}.
template <typename Real>
RESTORERT_HD Moments<Real> merge(const Moments<Real>& a, const Moments<Real>& b) {
  const Real count = a.count + b.count;
  if (count == Real(0)) return a;
  const Real delta = b.mean - a.mean;
  const Real share = b.count / count;
  return {count, a.mean + delta * share, a.m2 + b.m2 + delta * delta * (a.count * share)};
}

}  // namespace restorert
