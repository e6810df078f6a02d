//! Words of the pages about tasks and their deliveries.

use super::texts;

texts! {
    /// Tasks.
    Tasks {
        title: "Tasks",
        about: "A task sends one version of one resource to a set of devices.",
        new: "Deliver a resource",
        run: "State",
        all_states: "All states",
        name: "Task",
        product: "Product",
        progress: "Ended",
        delivered: "Delivered",
        failed: "Failed",
        created: "Made",
        by: "By",
        empty: "There is no task yet.",
        empty_search: "No task is in this state.",
        resource: "Resource",
        resource_gone: "deleted since",
        version_of: "version {version}",
        finished: "Ended",
        plan: "How it runs",
        devices: "Devices",
        details: "Details",
        id: "Id",
        all: "All",
        pause: "Pause",
        resume: "Resume",
        promote: "Go on to all devices",
        cancel_all: "Cancel the task",
        cancel_question: "Cancel every delivery that has not ended? Devices that were told are told to stop. What was canceled stays so unless you try it again.",
        cancel_yes: "Cancel all that is open",
        retry_all: "Retry all that failed",
        delete: "Delete the task",
        delete_question: "Delete the task and what it says of its devices? Export it first if you need the proof.",
        export: "Export as CSV",
        device: "Device",
        state: "State",
        percent: "Progress",
        why: "Reason",
        attempt: "Attempt",
        choose: "Choose {device}",
        choose_all: "Choose all on this page",
        cancel_chosen: "Cancel the chosen",
        retry_chosen: "Retry the chosen",
        none_chosen: "No device was chosen. Nothing was changed.",
        no_deliveries: "No device is in this state.",
        being_made: "The task is being made; its devices appear when it is.",
        live_lost: "Live updates have stopped. Load the page anew.",
        not_made: "It could not be made: {reason}.",
        starts_at: "It starts at {time} UTC.",
        was_aborted: "Too many of its deliveries failed: the rest was given up.",
        cancel: "Cancel",
        retry: "Retry",
        timeline: "Timeline",
        at: "At",
        device_id: "Device id",
    }
}

texts! {
    /// Why a delivery waits.
    Waiting {
        paused: "The task is paused.",
        scheduled: "The task has not started.",
        backoff: "An attempt failed; the next one comes by itself.",
        offline: "The device is not connected.",
        device_busy: "Another delivery is out to the device.",
        not_in_window: "It is not the time of day for the task.",
        canary: "Other devices go first.",
        in_progress_limit: "As many deliveries are in progress as may be.",
        paced: "As many devices were told as the pace allows.",
        device_has_not_asked: "The device knows of it and has not asked for bytes.",
        bytes_rate: "As many bytes were sent as the rate allows.",
        node_budget: "The gateway's memory for sending is in use.",
        window_full: "The device has not acknowledged what it was sent.",
        confirming: "Every byte was sent; the device has not said that it is done.",
    }
}

texts! {
    /// Why a delivery failed.
    Failures {
        canceled: "Canceled by an operator.",
        aborted: "Given up: too many others of the task failed.",
        incomplete: "The device said it was done before every byte was sent.",
        device: "The device said that it failed: {detail}",
        confirm_timeout: "The device had every byte and did not report in time.",
        step_timeout: "The device was connected and fell silent.",
        in_progress_timeout: "It took longer than a delivery may.",
        timeout: "It took too long: {detail}",
        rejected: "The device cannot take it: {detail}",
        resource_gone: "The resource is gone.",
        device_gone: "The device was deleted.",
        unknown: "It failed: {detail}",
    }
}
