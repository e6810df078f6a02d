//! Words of the pages about who may operate the gateway, and what was done.

use super::texts;

texts! {
    /// The page of whoever is signed in.
    Account {
        title: "Your account",
        details: "Details",
        change: "Change your password",
        change_about: "You stay signed in here; everywhere else you are signed out.",
        current: "Current password",
        new: "New password",
        new_hint: "12 characters or more.",
        again: "New password, again",
        submit: "Change the password",
        wrong: "This is not your password.",
    }
}

texts! {
    /// Operators.
    Operators {
        title: "Operators",
        about: "People who sign in here. What each does is in the audit, under this name.",
        add: "Make an operator",
        name: "Name",
        role: "Role",
        state: "State",
        created: "Made",
        changed: "Changed",
        password_set: "Password set",
        details: "Details",
        name_hint: "1 to 64 letters, digits, _ - . and @. It never changes.",
        role_hint: "Viewers look; operators also change devices, resources and tasks; administrators also products, operators and nodes.",
        password: "Password",
        password_hint: "12 characters or more. Empty: one is made and shown once.",
        password_again: "Password, again",
        password_differs: "The two passwords are not the same.",
        taken: "Another operator has this name.",
        done: "The operator “{name}” was made.",
        done_label: "The password",
        open: "Open the operator",
        may_enter: "May sign in",
        edit: "Role and entry",
        last_admin: "No administrator would be left who may sign in. Make another one first.",
        reset: "Set a new password",
        reset_about: "What was opened with the former one is over at once.",
        reset_done: "The password of “{name}” was replaced.",
        delete: "Delete the operator",
        delete_question: "Delete the operator? What it did stays in the audit.",
    }
}

texts! {
    /// API tokens.
    Tokens {
        title: "API tokens",
        about: "With these, programs use the API. What each does is in the audit, under its name.",
        add: "Make a token",
        empty: "There is no token yet.",
        name: "Name",
        role: "Role",
        created: "Made",
        expires: "Ends",
        used: "Last used",
        never: "never",
        actions: "Actions",
        name_hint: "1 to 64 characters, as the audit shows it.",
        expires_hint: "The day on which it ends, by UTC. Empty: never.",
        expires_rule: "Give a day that is still to come, as 2026-12-31, or nothing.",
        done: "The token “{name}” was made.",
        done_label: "The token",
        back: "Back to the tokens",
        too_many: "There are as many tokens as may be. Revoke one first.",
        revoke: "Revoke",
        revoke_title: "Revoke a token",
        revoke_question: "Revoke the token “{name}”? What uses it is refused: on this node at once, on others within a minute.",
    }
}

texts! {
    /// The audit.
    Audit {
        title: "Audit",
        about: "What was changed, by whom and from where, newest first.",
        actor: "By",
        action: "What",
        action_hint: "device or device.freeze",
        subject: "To what",
        since: "From day",
        until: "To day",
        at: "When",
        origin: "From",
        detail: "Details",
        empty: "Nothing was changed yet.",
        empty_search: "Nothing that was changed fits the filter.",
    }
}

texts! {
    /// Nodes.
    Nodes {
        title: "Nodes",
        about: "The processes of the gateway, and whether they are well.",
        version: "Version",
        started: "Started",
        devices: "Devices connected",
        applications: "Applications by MQTT",
        checks: "Checks",
        well: "well",
        reload: "Read the certificates anew",
        reload_failed: "A certificate cannot be used; those from before are still served: {reason}",
        drain: "Drain",
        drain_title: "Drain a node",
        drain_question: "Drain the node “{id}”? It lets nobody in any more, tells its devices to go, and stops. Nothing takes this back; this page goes with it if no other node serves it.",
        drain_yes: "Drain the node and let it stop",
    }
}
