//! The `bonding` program. See [`bonding::command`].

fn main() -> std::process::ExitCode {
    bonding::command::main()
}
