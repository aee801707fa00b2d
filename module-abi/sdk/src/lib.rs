//! Author kit for Tepui modules.
