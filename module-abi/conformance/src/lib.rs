//! Conformance suites, one per module kind.
