//! The `bonding` program. See [`bonding::command`].

fn main() {}
