//! Ids, time and the resource algebra.
