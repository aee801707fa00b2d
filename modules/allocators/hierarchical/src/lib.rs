//! Weighted dominant resource fairness.
