#![cfg(test)]
//! One integration binary.
