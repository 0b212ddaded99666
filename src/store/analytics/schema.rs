//! Tables of the analytics database. A test compares them with what the migrations make.

diesel::table! {
    /// Table `guest_point`.
    guest_point (server, at) {
        /// Column `server`.
        server -> BigInt,
        /// Column `at`.
        at -> BigInt,
        /// Column `customer`.
        customer -> BigInt,
        /// Column `round_trip_micros`.
        round_trip_micros -> BigInt,
        /// Column `cpu_load`.
        cpu_load -> Double,
        /// Column `ram_used_mb`.
        ram_used_mb -> BigInt,
        /// Column `ram_total_mb`.
        ram_total_mb -> BigInt,
        /// Column `processes`.
        processes -> BigInt,
    }
}
