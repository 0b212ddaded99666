//! Tables of the provisioning database. A test compares them with what the migrations make.

diesel::table! {
    /// Table `node`.
    node (boot) {
        /// Column `boot`.
        boot -> Text,
        /// Column `role`.
        role -> Text,
        /// Column `beat`.
        beat -> BigInt,
        /// Column `state`.
        state -> Text,
        /// Column `started_at`.
        started_at -> BigInt,
    }
}

diesel::table! {
    /// Table `sequencer`.
    sequencer (name) {
        /// Column `name`.
        name -> Text,
        /// Column `next_key`.
        next_key -> BigInt,
    }
}

diesel::table! {
    /// Table `setting`.
    setting (name) {
        /// Column `name`.
        name -> Text,
        /// Column `value`.
        value -> Text,
    }
}

diesel::table! {
    /// Table `customer`.
    customer (id) {
        /// Column `id`.
        id -> BigInt,
        /// Column `name`.
        name -> Text,
        /// Column `currency`.
        currency -> Text,
        /// Column `time_zone`.
        time_zone -> Text,
        /// Column `status`.
        status -> Text,
        /// Column `created_at`.
        created_at -> BigInt,
    }
}

diesel::table! {
    /// Table `cloud`.
    cloud (id) {
        /// Column `id`.
        id -> BigInt,
        /// Column `name`.
        name -> Text,
        /// Column `provider`.
        provider -> Text,
        /// Column `driver`.
        driver -> Text,
        /// Column `endpoint`.
        endpoint -> Text,
        /// Column `private_cloud`.
        private_cloud -> Bool,
        /// Column `status`.
        status -> Text,
    }
}

diesel::table! {
    /// Table `account`.
    account (id) {
        /// Column `id`.
        id -> BigInt,
        /// Column `customer`.
        customer -> BigInt,
        /// Column `cloud`.
        cloud -> BigInt,
        /// Column `name`.
        name -> Text,
        /// Column `account_number`.
        account_number -> Text,
        /// Column `credential`.
        credential -> Text,
        /// Column `default_budget`.
        default_budget -> BigInt,
        /// Column `owner`.
        owner -> BigInt,
        /// Column `status`.
        status -> Text,
    }
}

diesel::table! {
    /// Table `region`.
    region (id) {
        /// Column `id`.
        id -> BigInt,
        /// Column `cloud`.
        cloud -> BigInt,
        /// Column `customer`.
        customer -> BigInt,
        /// Column `name`.
        name -> Text,
        /// Column `description`.
        description -> Text,
        /// Column `jurisdiction`.
        jurisdiction -> Text,
        /// Column `provider_id`.
        provider_id -> Text,
        /// Column `status`.
        status -> Text,
    }
}

diesel::table! {
    /// Table `data_center`.
    data_center (id) {
        /// Column `id`.
        id -> BigInt,
        /// Column `region`.
        region -> BigInt,
        /// Column `name`.
        name -> Text,
        /// Column `description`.
        description -> Text,
        /// Column `provider_id`.
        provider_id -> Text,
        /// Column `status`.
        status -> Text,
    }
}

diesel::table! {
    /// Table `server_product`.
    server_product (id) {
        /// Column `id`.
        id -> BigInt,
        /// Column `cloud`.
        cloud -> BigInt,
        /// Column `region`.
        region -> BigInt,
        /// Column `name`.
        name -> Text,
        /// Column `description`.
        description -> Text,
        /// Column `provider_id`.
        provider_id -> Text,
        /// Column `architecture`.
        architecture -> Text,
        /// Column `platform`.
        platform -> Text,
        /// Column `cpu_count`.
        cpu_count -> Integer,
        /// Column `cpu_mhz`.
        cpu_mhz -> Integer,
        /// Column `ram_mb`.
        ram_mb -> Integer,
        /// Column `disk_gb`.
        disk_gb -> Integer,
        /// Column `hourly_rate`.
        hourly_rate -> Double,
        /// Column `currency`.
        currency -> Text,
    }
}

diesel::table! {
    /// Table `machine_image`.
    machine_image (id) {
        /// Column `id`.
        id -> BigInt,
        /// Column `customer`.
        customer -> BigInt,
        /// Column `account`.
        account -> BigInt,
        /// Column `cloud`.
        cloud -> BigInt,
        /// Column `region`.
        region -> BigInt,
        /// Column `name`.
        name -> Text,
        /// Column `description`.
        description -> Text,
        /// Column `provider_id`.
        provider_id -> Text,
        /// Column `platform`.
        platform -> Text,
        /// Column `architecture`.
        architecture -> Text,
        /// Column `owner_number`.
        owner_number -> Text,
        /// Column `agent_version`.
        agent_version -> BigInt,
        /// Column `budget`.
        budget -> BigInt,
        /// Column `created_at`.
        created_at -> BigInt,
        /// Column `status`.
        status -> Text,
    }
}

diesel::table! {
    /// Table `billing_code`.
    billing_code (id) {
        /// Column `id`.
        id -> BigInt,
        /// Column `customer`.
        customer -> BigInt,
        /// Column `name`.
        name -> Text,
        /// Column `description`.
        description -> Text,
        /// Column `finance_code`.
        finance_code -> Text,
        /// Column `status`.
        status -> Text,
        /// Column `budget_state`.
        budget_state -> Text,
        /// Column `soft_quota`.
        soft_quota -> Nullable<Double>,
        /// Column `hard_quota`.
        hard_quota -> Nullable<Double>,
        /// Column `currency`.
        currency -> Text,
    }
}

diesel::table! {
    /// Table `user_group`.
    user_group (id) {
        /// Column `id`.
        id -> BigInt,
        /// Column `customer`.
        customer -> BigInt,
        /// Column `name`.
        name -> Text,
        /// Column `description`.
        description -> Text,
        /// Column `status`.
        status -> Text,
    }
}

diesel::table! {
    /// Table `role`.
    role (id) {
        /// Column `id`.
        id -> BigInt,
        /// Column `customer`.
        customer -> BigInt,
        /// Column `name`.
        name -> Text,
        /// Column `description`.
        description -> Text,
        /// Column `status`.
        status -> Text,
        /// Column `acl`.
        acl -> Text,
    }
}

diesel::table! {
    /// Table `role_assignment`.
    role_assignment (user_group, account) {
        /// Column `customer`.
        customer -> BigInt,
        /// Column `user_group`.
        user_group -> BigInt,
        /// Column `account`.
        account -> BigInt,
        /// Column `role`.
        role -> BigInt,
    }
}

diesel::table! {
    /// Table `person`.
    person (id) {
        /// Column `id`.
        id -> BigInt,
        /// Column `customer`.
        customer -> BigInt,
        /// Column `account`.
        account -> BigInt,
        /// Column `given_name`.
        given_name -> Text,
        /// Column `family_name`.
        family_name -> Text,
        /// Column `email`.
        email -> Text,
        /// Column `login`.
        login -> Text,
        /// Column `password_hash`.
        password_hash -> Text,
        /// Column `time_zone`.
        time_zone -> Text,
        /// Column `status`.
        status -> Text,
    }
}

diesel::table! {
    /// Table `person_group`.
    person_group (person, user_group) {
        /// Column `person`.
        person -> BigInt,
        /// Column `user_group`.
        user_group -> BigInt,
    }
}

diesel::table! {
    /// Table `saved_view`.
    saved_view (person, name) {
        /// Column `person`.
        person -> BigInt,
        /// Column `name`.
        name -> Text,
        /// Column `query`.
        query -> Text,
        /// Column `made_at`.
        made_at -> BigInt,
    }
}

diesel::table! {
    /// Table `plan`.
    plan (id) {
        /// Column `id`.
        id -> Text,
        /// Column `customer`.
        customer -> BigInt,
        /// Column `person`.
        person -> BigInt,
        /// Column `act`.
        act -> Text,
        /// Column `query`.
        query -> Text,
        /// Column `jobs`.
        jobs -> Text,
        /// Column `made_at`.
        made_at -> BigInt,
        /// Column `expires_at`.
        expires_at -> BigInt,
        /// Column `done_at`.
        done_at -> Nullable<BigInt>,
        /// Column `result`.
        result -> Nullable<Text>,
    }
}

diesel::table! {
    /// Table `session`.
    session (token_hash) {
        /// Column `token_hash`.
        token_hash -> Text,
        /// Column `person`.
        person -> BigInt,
        /// Column `csrf`.
        csrf -> Text,
        /// Column `made_at`.
        made_at -> BigInt,
        /// Column `expires_at`.
        expires_at -> BigInt,
    }
}

diesel::table! {
    /// Table `api_key`.
    api_key (access_key) {
        /// Column `access_key`.
        access_key -> Text,
        /// Column `customer`.
        customer -> BigInt,
        /// Column `account`.
        account -> BigInt,
        /// Column `person`.
        person -> BigInt,
        /// Column `name`.
        name -> Text,
        /// Column `description`.
        description -> Text,
        /// Column `sealed_secret`.
        sealed_secret -> Binary,
        /// Column `state`.
        state -> Text,
        /// Column `activated_at`.
        activated_at -> BigInt,
        /// Column `expires_at`.
        expires_at -> Nullable<BigInt>,
    }
}

diesel::table! {
    /// Table `replay`.
    replay (access_key, value) {
        /// Column `access_key`.
        access_key -> Text,
        /// Column `value`.
        value -> Text,
        /// Column `request`.
        request -> Text,
        /// Column `made_at`.
        made_at -> BigInt,
    }
}

diesel::table! {
    /// Table `idem`.
    idem (customer, access_key, idem_key) {
        /// Column `customer`.
        customer -> BigInt,
        /// Column `access_key`.
        access_key -> Text,
        /// Column `idem_key`.
        idem_key -> Text,
        /// Column `body_hash`.
        body_hash -> Text,
        /// Column `job`.
        job -> Nullable<Text>,
        /// Column `status`.
        status -> Integer,
        /// Column `created_id`.
        created_id -> Nullable<BigInt>,
        /// Column `made_at`.
        made_at -> BigInt,
    }
}

diesel::table! {
    /// Table `job`.
    job (uid) {
        /// Column `uid`.
        uid -> Text,
        /// Column `id`.
        id -> BigInt,
        /// Column `customer`.
        customer -> BigInt,
        /// Column `account`.
        account -> BigInt,
        /// Column `person`.
        person -> BigInt,
        /// Column `access_key`.
        access_key -> Text,
        /// Column `request`.
        request -> Text,
        /// Column `kind`.
        kind -> Text,
        /// Column `params`.
        params -> Text,
        /// Column `description`.
        description -> Text,
        /// Column `state`.
        state -> Text,
        /// Column `epoch`.
        epoch -> BigInt,
        /// Column `owner`.
        owner -> Nullable<Text>,
        /// Column `try_no`.
        try_no -> Integer,
        /// Column `crashes`.
        crashes -> Integer,
        /// Column `undo_begun`.
        undo_begun -> Bool,
        /// Column `cancel_by`.
        cancel_by -> Nullable<Text>,
        /// Column `due_at`.
        due_at -> Nullable<BigInt>,
        /// Column `why_code`.
        why_code -> Text,
        /// Column `why`.
        why -> Text,
        /// Column `server`.
        server -> Nullable<BigInt>,
        /// Column `resource`.
        resource -> Nullable<Text>,
        /// Column `message`.
        message -> Nullable<Text>,
        /// Column `priority`.
        priority -> Integer,
        /// Column `created_at`.
        created_at -> BigInt,
        /// Column `claimed_at`.
        claimed_at -> Nullable<BigInt>,
        /// Column `changed_at`.
        changed_at -> BigInt,
        /// Column `deadline`.
        deadline -> BigInt,
        /// Column `ended_at`.
        ended_at -> Nullable<BigInt>,
        /// Column `version`.
        version -> BigInt,
        /// Column `parent`.
        parent -> Nullable<BigInt>,
        /// Column `limited`.
        limited -> Bool,
    }
}

diesel::table! {
    /// Table `attempt`.
    attempt (uid) {
        /// Column `uid`.
        uid -> Text,
        /// Column `job`.
        job -> Text,
        /// Column `customer`.
        customer -> BigInt,
        /// Column `step`.
        step -> Text,
        /// Column `variant`.
        variant -> Integer,
        /// Column `try_no`.
        try_no -> Integer,
        /// Column `n`.
        n -> Integer,
        /// Column `epoch`.
        epoch -> BigInt,
        /// Column `token`.
        token -> Text,
        /// Column `request`.
        request -> Binary,
        /// Column `lease`.
        lease -> Text,
        /// Column `outcome`.
        outcome -> Text,
        /// Column `class`.
        class -> Nullable<Text>,
        /// Column `evidence`.
        evidence -> Text,
        /// Column `output`.
        output -> Text,
        /// Column `started_at`.
        started_at -> BigInt,
        /// Column `closed_at`.
        closed_at -> Nullable<BigInt>,
        /// Column `quiet_until`.
        quiet_until -> Nullable<BigInt>,
        /// Column `version`.
        version -> BigInt,
    }
}

diesel::table! {
    /// Table `evidence`.
    evidence (subject, source) {
        /// Column `subject`.
        subject -> Text,
        /// Column `source`.
        source -> Text,
        /// Column `job`.
        job -> Text,
        /// Column `customer`.
        customer -> BigInt,
        /// Column `verdict`.
        verdict -> Text,
        /// Column `text`.
        text -> Text,
        /// Column `raw`.
        raw -> Text,
        /// Column `made_at`.
        made_at -> BigInt,
    }
}

diesel::table! {
    /// Table `watch`.
    watch (uid) {
        /// Column `uid`.
        uid -> Text,
        /// Column `job`.
        job -> Text,
        /// Column `customer`.
        customer -> BigInt,
        /// Column `step`.
        step -> Text,
        /// Column `try_no`.
        try_no -> Integer,
        /// Column `kind`.
        kind -> Text,
        /// Column `target`.
        target -> Text,
        /// Column `expectation`.
        expectation -> Text,
        /// Column `owner`.
        owner -> Nullable<Text>,
        /// Column `due_at`.
        due_at -> BigInt,
        /// Column `deadline`.
        deadline -> BigInt,
        /// Column `looks`.
        looks -> Integer,
        /// Column `made_at`.
        made_at -> BigInt,
        /// Column `done_at`.
        done_at -> Nullable<BigInt>,
    }
}

diesel::table! {
    /// Table `outbox`.
    outbox (id) {
        /// Column `id`.
        id -> BigInt,
        /// Column `exchange`.
        exchange -> Text,
        /// Column `routing_key`.
        routing_key -> Text,
        /// Column `body`.
        body -> Text,
        /// Column `made_at`.
        made_at -> BigInt,
    }
}

diesel::table! {
    /// Table `obligation`.
    obligation (tag) {
        /// Column `tag`.
        tag -> Text,
        /// Column `job`.
        job -> Text,
        /// Column `customer`.
        customer -> BigInt,
        /// Column `account`.
        account -> BigInt,
        /// Column `region`.
        region -> BigInt,
        /// Column `state`.
        state -> Text,
        /// Column `owner`.
        owner -> Nullable<Text>,
        /// Column `look_at`.
        look_at -> BigInt,
        /// Column `look_until`.
        look_until -> BigInt,
        /// Column `looks`.
        looks -> Integer,
        /// Column `failures`.
        failures -> Integer,
        /// Column `found`.
        found -> Text,
        /// Column `record`.
        record -> Text,
        /// Column `made_at`.
        made_at -> BigInt,
        /// Column `looked_at`.
        looked_at -> Nullable<BigInt>,
        /// Column `closed_at`.
        closed_at -> Nullable<BigInt>,
        /// Column `version`.
        version -> BigInt,
    }
}

diesel::table! {
    /// Table `tag_sweep`.
    tag_sweep (account, region) {
        /// Column `account`.
        account -> BigInt,
        /// Column `region`.
        region -> BigInt,
        /// Column `customer`.
        customer -> BigInt,
        /// Column `owner`.
        owner -> Nullable<Text>,
        /// Column `look_at`.
        look_at -> BigInt,
        /// Column `looked_at`.
        looked_at -> Nullable<BigInt>,
        /// Column `version`.
        version -> BigInt,
    }
}

diesel::table! {
    /// Table `server`.
    server (id) {
        /// Column `id`.
        id -> BigInt,
        /// Column `customer`.
        customer -> BigInt,
        /// Column `account`.
        account -> BigInt,
        /// Column `cloud`.
        cloud -> BigInt,
        /// Column `region`.
        region -> BigInt,
        /// Column `data_center`.
        data_center -> BigInt,
        /// Column `product`.
        product -> BigInt,
        /// Column `provider_product`.
        provider_product -> Text,
        /// Column `image`.
        image -> BigInt,
        /// Column `name`.
        name -> Text,
        /// Column `description`.
        description -> Text,
        /// Column `provider_id`.
        provider_id -> Text,
        /// Column `job`.
        job -> Text,
        /// Column `status`.
        status -> Text,
        /// Column `platform`.
        platform -> Text,
        /// Column `architecture`.
        architecture -> Text,
        /// Column `agent_version`.
        agent_version -> BigInt,
        /// Column `budget`.
        budget -> BigInt,
        /// Column `label`.
        label -> Nullable<Text>,
        /// Column `keypair`.
        keypair -> Nullable<Text>,
        /// Column `owner`.
        owner -> BigInt,
        /// Column `user_groups`.
        user_groups -> Text,
        /// Column `private_ip`.
        private_ip -> Nullable<Text>,
        /// Column `public_ip`.
        public_ip -> Nullable<Text>,
        /// Column `started_at`.
        started_at -> BigInt,
        /// Column `stopped_at`.
        stopped_at -> Nullable<BigInt>,
        /// Column `terminate_after`.
        terminate_after -> Nullable<BigInt>,
        /// Column `pause_after`.
        pause_after -> Nullable<BigInt>,
        /// Column `last_contact`.
        last_contact -> Nullable<BigInt>,
        /// Column `busy_by`.
        busy_by -> Nullable<Text>,
        /// Column `changed_at`.
        changed_at -> BigInt,
        /// Column `version`.
        version -> BigInt,
    }
}

diesel::table! {
    /// Table `agent`.
    agent (id) {
        /// Column `id`.
        id -> BigInt,
        /// Column `customer`.
        customer -> BigInt,
        /// Column `job`.
        job -> Text,
        /// Column `server`.
        server -> Nullable<BigInt>,
        /// Column `token_hash`.
        token_hash -> Text,
        /// Column `token_expires`.
        token_expires -> BigInt,
        /// Column `token_used_at`.
        token_used_at -> Nullable<BigInt>,
        /// Column `key_hash`.
        key_hash -> Nullable<Text>,
        /// Column `serial`.
        serial -> Nullable<Text>,
        /// Column `state`.
        state -> Text,
        /// Column `address`.
        address -> Nullable<Text>,
        /// Column `version`.
        version -> BigInt,
        /// Column `platform`.
        platform -> Text,
        /// Column `instance`.
        instance -> Nullable<Text>,
        /// Column `session_boot`.
        session_boot -> Nullable<Text>,
        /// Column `session_no`.
        session_no -> BigInt,
        /// Column `enrolled_at`.
        enrolled_at -> Nullable<BigInt>,
        /// Column `expires_at`.
        expires_at -> Nullable<BigInt>,
        /// Column `last_contact`.
        last_contact -> Nullable<BigInt>,
        /// Column `made_at`.
        made_at -> BigInt,
    }
}

diesel::table! {
    /// Table `guest_command`.
    guest_command (id) {
        /// Column `id`.
        id -> Text,
        /// Column `seq`.
        seq -> BigInt,
        /// Column `job`.
        job -> Text,
        /// Column `attempt`.
        attempt -> Text,
        /// Column `customer`.
        customer -> BigInt,
        /// Column `server`.
        server -> BigInt,
        /// Column `epoch`.
        epoch -> BigInt,
        /// Column `operation`.
        operation -> Text,
        /// Column `user_name`.
        user_name -> Text,
        /// Column `state`.
        state -> Text,
        /// Column `made_at`.
        made_at -> BigInt,
        /// Column `expires_at`.
        expires_at -> BigInt,
        /// Column `sent_at`.
        sent_at -> Nullable<BigInt>,
        /// Column `done_at`.
        done_at -> Nullable<BigInt>,
        /// Column `result`.
        result -> Nullable<Text>,
        /// Column `cancel_epoch`.
        cancel_epoch -> Nullable<BigInt>,
    }
}

diesel::table! {
    /// Table `output`.
    output (command, stream, start) {
        /// Column `command`.
        command -> Text,
        /// Column `stream`.
        stream -> Text,
        /// Column `start`.
        start -> BigInt,
        /// Column `data`.
        data -> Binary,
    }
}

diesel::table! {
    /// Table `audit`.
    audit (id) {
        /// Column `id`.
        id -> BigInt,
        /// Column `customer`.
        customer -> BigInt,
        /// Column `actor`.
        actor -> Text,
        /// Column `action`.
        action -> Text,
        /// Column `subject`.
        subject -> Text,
        /// Column `detail`.
        detail -> Text,
        /// Column `made_at`.
        made_at -> BigInt,
    }
}

diesel::table! {
    /// Table `pause`.
    pause (id) {
        /// Column `id`.
        id -> BigInt,
        /// Column `customer`.
        customer -> BigInt,
        /// Column `kind`.
        kind -> Nullable<Text>,
        /// Column `account`.
        account -> Nullable<BigInt>,
        /// Column `made_by`.
        made_by -> Text,
        /// Column `reason`.
        reason -> Text,
        /// Column `made_at`.
        made_at -> BigInt,
    }
}

diesel::table! {
    /// Table `schedule`.
    schedule (id) {
        /// Column `id`.
        id -> BigInt,
        /// Column `customer`.
        customer -> BigInt,
        /// Column `account`.
        account -> BigInt,
        /// Column `person`.
        person -> BigInt,
        /// Column `name`.
        name -> Text,
        /// Column `cron`.
        cron -> Text,
        /// Column `params`.
        params -> Text,
        /// Column `description`.
        description -> Text,
        /// Column `priority`.
        priority -> Integer,
        /// Column `time_limit`.
        time_limit -> BigInt,
        /// Column `misfire`.
        misfire -> Text,
        /// Column `enabled`.
        enabled -> Bool,
        /// Column `next_at`.
        next_at -> Nullable<BigInt>,
        /// Column `last_at`.
        last_at -> Nullable<BigInt>,
        /// Column `last_job`.
        last_job -> Nullable<BigInt>,
        /// Column `made_at`.
        made_at -> BigInt,
        /// Column `version`.
        version -> BigInt,
    }
}

diesel::table! {
    /// Table `job_limit`.
    job_limit (account, kind) {
        /// Column `account`.
        account -> BigInt,
        /// Column `kind`.
        kind -> Text,
        /// Column `customer`.
        customer -> BigInt,
        /// Column `together`.
        together -> Nullable<Integer>,
        /// Column `starts`.
        starts -> Nullable<Integer>,
        /// Column `per_secs`.
        per_secs -> Nullable<Integer>,
        /// Column `burst`.
        burst -> Nullable<Integer>,
        /// Column `made_by`.
        made_by -> Text,
        /// Column `reason`.
        reason -> Text,
        /// Column `made_at`.
        made_at -> BigInt,
        /// Column `spent_until`.
        spent_until -> BigInt,
        /// Column `learned_rate`.
        learned_rate -> Nullable<BigInt>,
        /// Column `learned_at`.
        learned_at -> Nullable<BigInt>,
        /// Column `retry_at`.
        retry_at -> Nullable<BigInt>,
        /// Column `touched_at`.
        touched_at -> BigInt,
    }
}

diesel::table! {
    /// Table `turn`.
    turn (job) {
        /// Column `job`.
        job -> Text,
        /// Column `account`.
        account -> BigInt,
        /// Column `kind`.
        kind -> Text,
        /// Column `state`.
        state -> Text,
        /// Column `behind`.
        behind -> Integer,
        /// Column `id`.
        id -> BigInt,
    }
}

diesel::table! {
    /// Table `child`.
    child (parent, id) {
        /// Column `parent`.
        parent -> BigInt,
        /// Column `id`.
        id -> BigInt,
        /// Column `job`.
        job -> Text,
        /// Column `done`.
        done -> Bool,
    }
}

diesel::allow_tables_to_appear_in_same_query!(
    job,
    job_limit,
    turn,
    child,
    pause,
    attempt,
    watch,
    evidence,
    node,
    server,
    agent,
    guest_command,
    account,
    region,
    person,
    obligation,
    tag_sweep
);
