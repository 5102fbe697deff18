//! The test laboratory: namespaces, emulated lines and traffic.
