//! Tables, rows and the encoders of what clients read.
