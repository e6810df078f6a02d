//! Both halves against each other, over a wire that is a queue and a clock that is a number.

mod attack;
mod pair;
mod rest;
mod session;
