//! The report as a person reads it.

use std::fmt::{self, Display, Formatter};

use super::{Datagrams, Delivery, Percentiles, Report, Server, Uploads, as_f64};

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.write_verdict(f)?;
        self.write_connect(f)?;
        if let Some(answered) = self.answered {
            writeln!(
                f,
                "  answered       {answered} that asked after they had stayed"
            )?;
        }
        if let Some(delivery) = &self.delivery {
            write_delivery(delivery, f)?;
        }
        if let Some(uploads) = &self.uploads {
            write_uploads(uploads, f)?;
        }
        self.write_messages(f)?;
        if let Some(datagrams) = &self.datagrams {
            write_datagrams(datagrams, f)?;
        }
        if let Some(server) = &self.server {
            write_server(server, f)?;
        }
        let peak = mib(self.swarm_rss_peak_bytes);
        writeln!(
            f,
            "  swarm itself   {:.2} CPU-s, peak {peak}",
            self.swarm_cpu_seconds
        )?;
        for (kind, error) in &self.errors {
            writeln!(
                f,
                "  error          {kind} x {}, first: {}",
                error.count, error.first
            )?;
        }
        for broken in &self.broken {
            writeln!(f, "  does not hold  {broken}")?;
        }
        Ok(())
    }
}

impl Report {
    fn write_verdict(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let verdict = match (self.interrupted, self.timed_out, self.ok) {
            (true, ..) => "INTERRUPTED",
            (_, true, _) => "TIMED OUT",
            (.., true) => "OK",
            (.., false) => "FAILED",
        };
        let devices = &self.devices;
        write!(
            f,
            "{} {verdict}: {} of {} devices ok",
            self.scenario, devices.ok, devices.total
        )?;
        for (count, what) in [
            (devices.wrong, "wrong"),
            (devices.failed, "failed"),
            (devices.left, "not waited for"),
        ] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        writeln!(f)
    }

    fn write_connect(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let connect = &self.connect;
        writeln!(
            f,
            "  connect        {} in {:.2} s ({:.0}/s)",
            connect.connected, connect.seconds, connect.per_second
        )?;
        write_percentiles(f, "  tls done", connect.tls.as_ref())?;
        write_percentiles(f, "  logged in", connect.login.as_ref())?;
        let ready = if self.datagrams.is_some() {
            "  registered"
        } else {
            "  subscribed"
        };
        write_percentiles(f, ready, connect.ready.as_ref())?;
        if connect.planned_drops + connect.reconnects > 0 {
            let (drops, reconnects) = (connect.planned_drops, connect.reconnects);
            writeln!(
                f,
                "  reconnects     {reconnects} unplanned, {drops} by the run itself"
            )?;
        }
        Ok(())
    }
}

fn write_delivery(delivery: &Delivery, f: &mut Formatter<'_>) -> fmt::Result {
    writeln!(
        f,
        "  delivered      {:.3} GB in {:.2} s ({:.1} MB/s), {} chunks, {} duplicate bytes",
        as_f64(delivery.bytes) / 1e9,
        delivery.seconds,
        delivery.mb_per_second,
        delivery.chunks,
        delivery.duplicate_bytes,
    )?;
    writeln!(
        f,
        "  resource       {} bytes, sha256 {}",
        delivery.resource_bytes, delivery.resource_sha256
    )?;
    write_percentiles(f, "  first byte", delivery.first_byte.as_ref())?;
    write_percentiles(f, "  per device", delivery.duration.as_ref())?;
    write_percentiles(f, "  slow devices", delivery.slow_duration.as_ref())?;
    if let (Some(bound), Some(ratio)) = (delivery.link_bound_seconds, delivery.link_bound_ratio) {
        writeln!(
            f,
            "  link bound     {bound:.2} s by window and round trip: took {ratio:.2} of it"
        )?;
    }
    if delivery.stalls > 0 {
        writeln!(
            f,
            "  stalls         {} requests repeated because nothing came",
            delivery.stalls
        )?;
    }
    if let Some(counts) = &delivery.gateway_counts {
        let counts: Vec<_> = counts
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(state, count)| format!("{count} {state}"))
            .collect();
        writeln!(f, "  gateway says   {}", counts.join(", "))?;
    }
    Ok(())
}

fn write_uploads(uploads: &Uploads, f: &mut Formatter<'_>) -> fmt::Result {
    writeln!(
        f,
        "  uploaded       {:.3} GB in {:.2} s ({:.1} MB/s), {} chunks, {} postponed",
        as_f64(uploads.bytes) / 1e9,
        uploads.seconds,
        uploads.mb_per_second,
        uploads.chunks,
        uploads.postponed,
    )?;
    writeln!(
        f,
        "  file           {} bytes a device, {} fetched back and right",
        uploads.file_bytes, uploads.verified
    )?;
    write_percentiles(f, "  per device", uploads.duration.as_ref())
}

fn write_datagrams(datagrams: &Datagrams, f: &mut Formatter<'_>) -> fmt::Result {
    writeln!(
        f,
        "  datagrams      {} sent by devices for {} requests; {} lost, {} doubled, {} late, {} slept through, {} other ports",
        datagrams.sent,
        datagrams.exchanges,
        datagrams.lost,
        datagrams.duplicated,
        datagrams.reordered,
        datagrams.slept_through,
        datagrams.rebinds,
    )?;
    writeln!(
        f,
        "  sent again     {} messages; {} given up",
        datagrams.retransmissions, datagrams.timeouts
    )
}

fn write_server(server: &Server, f: &mut Formatter<'_>) -> fmt::Result {
    writeln!(
        f,
        "  server CPU     connect {:.2} s ({:.3} per 1,000), run {:.2} s",
        server.connect_cpu_seconds, server.connect_cpu_seconds_per_1000, server.run_cpu_seconds
    )?;
    if let (Some(per_gb), Some(all)) = (
        server.cpu_seconds_per_gb,
        server.cpu_seconds_per_gb_with_connect,
    ) {
        writeln!(
            f,
            "  server CPU/GB  {per_gb:.3} CPU-s ({all:.3} with connecting)"
        )?;
    }
    let of = if server.rss_peak_is_of_this_run {
        "this run"
    } else {
        "its whole life"
    };
    writeln!(
        f,
        "  server memory  before {}, connected {} ({} bytes a device), peak {} ({of}), now {}",
        mib(server.rss_before_bytes),
        mib(server.rss_connected_bytes),
        server.rss_per_device_bytes,
        mib(server.rss_peak_bytes.max(server.rss_max_bytes)),
        mib(server.rss_now_bytes),
    )
}

pub(super) fn write_percentiles(
    f: &mut Formatter<'_>,
    name: &str,
    percentiles: Option<&Percentiles>,
) -> fmt::Result {
    let Some(p) = percentiles else { return Ok(()) };
    let (p50, p90, p99, max) = (
        time(p.p50_ms),
        time(p.p90_ms),
        time(p.p99_ms),
        time(p.max_ms),
    );
    writeln!(f, "{name:<16} p50 {p50}, p90 {p90}, p99 {p99}, max {max}")
}

pub(super) fn time(ms: f64) -> String {
    if ms >= 10_000.0 {
        format!("{:.2} s", ms / 1e3)
    } else if ms >= 100.0 {
        format!("{ms:.0} ms")
    } else {
        format!("{ms:.2} ms")
    }
}

pub(super) fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", as_f64(bytes) / as_f64(1 << 20))
}
