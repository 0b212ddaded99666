//! Tables of the credentials database, as `migrations/credentials` makes them.

diesel::table! {
    /// Data keys of tenants, each wrapped by the key-encryption key.
    tenant_key (id) {
        /// Name of the data key, 32 hexadecimal digits.
        id -> Text,
        /// The tenant.
        customer -> BigInt,
        /// `active` or `decrypt-only`.
        state -> Text,
        /// The data key, sealed.
        wrapped -> Binary,
        /// Microseconds since 1970.
        made_at -> BigInt,
    }
}

diesel::table! {
    /// Credentials, each sealed under its tenant's data key.
    credential (reference) {
        /// Opaque name that other databases hold.
        reference -> Text,
        /// The tenant.
        customer -> BigInt,
        /// The account at the cloud.
        account -> BigInt,
        /// The cloud endpoint it was entered for.
        endpoint -> Text,
        /// 1 at first, one more at each replacement.
        version -> BigInt,
        /// Access key and secret, sealed.
        sealed -> Binary,
        /// Microseconds since 1970.
        made_at -> BigInt,
    }
}
