#![cfg(test)]
//! One integration binary.

mod guest;
