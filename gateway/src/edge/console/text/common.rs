//! Words of every page, of the sign-in and of faults.

use super::texts;

texts! {
    /// Words of many pages.
    Common {
        product: "Headgate",
        skip: "Skip to the content",
        sign_out: "Sign out",
        account: "Your account",
        main_navigation: "Main",
        utc: "All times are UTC. This page was made at {time}.",
        search: "Search",
        save: "Save",
        cancel: "Cancel",
        edit: "Edit",
        delete: "Delete",
        first_page: "First page",
        next_page: "Next page",
        pages: "Pages",
        all_products: "All products",
        changed_meanwhile: "Someone else changed this while you were editing it. What is shown now is theirs; nothing of yours was stored.",
        shown_once: "Keep this now",
        shown_once_about: "It is shown this once and cannot be read again. Keep it where it belongs before you leave this page; if it is lost, a new one has to be made.",
    }
}

texts! {
    /// The navigation.
    Nav {
        overview: "Overview",
        delivery: "Delivery",
        resources: "Platform resources",
        deliver: "Deliver",
        tasks: "Tasks",
        uploads: "Device resources",
        identity: "Devices",
        devices: "Devices",
        batches: "Batch registration",
        products: "Products",
        applications: "Applications",
        gateway: "Gateway",
        nodes: "Nodes",
        access: "Access",
        operators: "Operators",
        tokens: "API tokens",
        audit: "Audit",
    }
}

texts! {
    /// Titles and details of faults.
    Faults {
        home: "Go to the overview",
        no_page: "There is no such page",
        no_page_detail: "The address is wrong, or the page has moved.",
        gone: "There is no such thing",
        gone_detail: "It was deleted, or never was.",
        forbidden: "Your role does not allow this",
        forbidden_detail: "Nothing was changed. An administrator can give you another role.",
        forged: "This form was not made for your session",
        forged_detail: "Nothing was changed. If you signed in again in another window, go back, load the page anew and repeat what you did.",
        signed_out: "You are not signed in",
        signed_out_detail: "Your session has ended. Nothing was changed. Sign in and repeat what you did.",
        bad_request: "This could not be used",
        no_form: "What was sent is no form.",
        conflict: "This is not possible now",
        overloaded: "Too much is under way",
        internal: "Something went wrong here",
        internal_detail: "The gateway could not make this page. Its log says why.",
    }
}

texts! {
    /// The sign-in.
    SignIn {
        title: "Sign in",
        name: "Name",
        password: "Password",
        submit: "Sign in",
        refused: "The name is unknown or the password is wrong.",
        locked_out: "Too many attempts failed. Try again in {time}.",
        ended: "Your session has ended. Nothing was lost; sign in to go on.",
        left: "You are signed out.",
        first_run: "First time here?",
        first_run_detail: "The first start of the gateway printed a password for the operator “admin”. It also stands in the file “admin.password” in the data directory, which only the gateway's own user can read.",
    }
}

/// What was just done, by the code that the address carries.
#[derive(Debug)]
pub(in crate::edge::console) struct Notices(&'static [(&'static str, &'static str)]);

impl Notices {
    /// English.
    pub(super) const EN: Self = Self(&[
        ("saved", "Saved."),
        ("deleted", "Deleted."),
        ("resource-added", "The resource was added."),
        (
            "content-replaced",
            "The new bytes are the current version now.",
        ),
        ("product-added", "The product was made."),
        (
            "device-frozen",
            "The device is frozen: it is let in no more, and its connection was closed.",
        ),
        ("device-unfrozen", "The device may connect again."),
        (
            "device-kicked",
            "The device's connection was ended. It may connect again.",
        ),
        ("device-absent", "The device was not connected any more."),
        ("fingerprint-replaced", "The fingerprint was replaced."),
        (
            "credential-cleared",
            "The second credential was taken away.",
        ),
        (
            "batch-taken",
            "The file was taken. Its devices are being registered.",
        ),
        (
            "batch-known",
            "The same file was sent before: this is its batch. Nothing was changed.",
        ),
        ("batch-confirmed", "The secrets are shown no more."),
        ("app-enabled", "The application may come in again."),
        (
            "app-disabled",
            "The application is let in no more, and its sessions were ended.",
        ),
        ("devices-bound", "The devices were bound."),
        ("devices-unbound", "The devices were unbound."),
        ("token-revoked", "The token was revoked."),
        (
            "password-changed",
            "Your password was changed, and your other sessions are over.",
        ),
        ("paused", "Paused: nothing more of it is sent."),
        ("resumed", "It goes on."),
        ("promoted", "It goes to all devices now."),
        ("canceled", "Cancelled."),
        ("retried", "What had failed is tried again."),
        ("certificates-same", "No certificate had changed."),
        (
            "certificates-read",
            "Certificates had changed; the new ones are served from here on.",
        ),
    ]);

    /// The words of a code; other codes have none.
    pub(in crate::edge::console) fn of(&self, code: &str) -> Option<&'static str> {
        let mut known = self.0.iter();
        known.find_map(|(name, text)| (*name == code).then_some(*text))
    }
}

/// The words of states, by the names that the API gives them.
#[derive(Debug)]
pub(in crate::edge::console) struct States(&'static [(&'static str, &'static str)]);

impl States {
    /// English.
    pub(super) const EN: Self = Self(&[
        ("pending", "Pending"),
        ("pushed", "Pushed"),
        ("delivering", "Delivering"),
        ("delivered", "Delivered"),
        ("failed", "Failed"),
        ("scheduled", "Scheduled"),
        ("running", "Running"),
        ("paused", "Paused"),
        ("aborted", "Aborted"),
        ("canceled", "Canceled"),
        ("finished", "Finished"),
        ("not_started", "Not started"),
        ("creating", "Creating"),
        ("created", "Created"),
        ("creation_failed", "Creation failed"),
        ("receiving", "Receiving"),
        ("stored", "Stored"),
        ("waiting", "Waiting"),
        ("unchanged", "Unchanged"),
        ("online", "Online"),
        ("offline", "Offline"),
        ("frozen", "Frozen"),
        ("enabled", "Enabled"),
        ("disabled", "Disabled"),
        ("ready", "Ready"),
        ("not_ready", "Not ready"),
        ("draining", "Draining"),
    ]);

    /// The word of a state; its name where there is none.
    pub(in crate::edge::console) fn of<'a>(&self, name: &'a str) -> &'a str {
        let mut known = self.0.iter();
        known
            .find_map(|(known, text)| (*known == name).then_some(*text))
            .unwrap_or(name)
    }
}
