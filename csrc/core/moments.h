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

// The part of merging that comes after the counts: `share` is that of the other set in all numbers,
// `weight` the first set's count times it. Moves `mean` to the mean of both, and returns what the
// distance of the two means adds to the sum of their m2.
template <typename Real>
RESTORERT_HD Real merge_means(Real& mean, Real other_mean, Real share, Real weight) {
  const Real delta = other_mean - mean;
  mean += delta * share;
  return delta * delta * weight;
}

// The empty set is {0, 0, 0}.
template <typename Real>
RESTORERT_HD Moments<Real> merge(const Moments<Real>& a, const Moments<Real>& b) {
  const Real count = a.count + b.count;
  if (count == Real(0)) return a;
  const Real share = b.count / count;
  Real mean = a.mean;
  const Real between = merge_means(mean, b.mean, share, a.count * share);
  return {count, mean, a.m2 + b.m2 + between};
}

}  // namespace restorert
