//! The #[config] attribute of the module SDK.
