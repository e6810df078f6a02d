//! Which devices have been signalled: all of them are looked after by one task, which is not to look at each.

use std::{
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

use super::registration::RdId;

/// Devices that were signalled since the last look; each is there at most a few times, since a signal wakes once.
#[derive(Debug, Default)]
pub(super) struct Ready {
    devices: Mutex<Vec<RdId>>,
    task: AtomicWaker,
}

/// The waker of one device.
struct DeviceWaker {
    id: RdId,
    ready: Arc<Ready>,
}

impl Ready {
    /// A waker that puts this device on the list.
    pub(super) fn waker(self: &Arc<Self>, id: RdId) -> Waker {
        let ready = Arc::clone(self);
        Waker::from(Arc::new(DeviceWaker { id, ready }))
    }

    /// Waits for devices; gives all that were signalled.
    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<Vec<RdId>> {
        self.task.register(cx.waker());
        let devices = std::mem::take(&mut *self.devices.lock());
        if devices.is_empty() {
            Poll::Pending
        } else {
            Poll::Ready(devices)
        }
    }
}

impl Wake for DeviceWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ready.devices.lock().push(self.id);
        self.ready.task.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_gather_until_they_are_looked_at() {
        let ready = Arc::<Ready>::default();
        let cx = Context::from_waker(Waker::noop());
        assert!(ready.poll(&cx).is_pending());
        ready.waker(RdId(1)).wake_by_ref();
        ready.waker(RdId(2)).wake();
        assert_eq!(ready.poll(&cx), Poll::Ready(vec![RdId(1), RdId(2)]));
        assert!(ready.poll(&cx).is_pending());
    }
}
