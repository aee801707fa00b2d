//! The frozen tables between the Tepui host and module libraries.
