//! Library of the built-in authorizers.
