//! Library of the built-in leader modules.
