//! Rewrites of plans: each fires where it is certain and nowhere else, and changes no result beyond rounding.

mod bias;
mod gradients;
mod join;
mod random;
mod recorded;
mod residual;
mod scale;
mod sums;
