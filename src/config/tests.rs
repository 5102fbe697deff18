//! Whole files: the bondlink package's own, and the sample that ships.
