//! Simulates a cluster of the real state machines under one clock and one seed.
