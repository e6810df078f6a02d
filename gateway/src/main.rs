//! The daemon `headgate`.

fn main() {}
