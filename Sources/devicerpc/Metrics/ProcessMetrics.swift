import CoreMetrics
import Foundation
import Glibc

/// What the kernel knows about this process, read when somebody scrapes.
struct ProcessMetrics: Sendable {
    private let cpuSeconds: FloatingPointCounterSeries?
    private let residentBytes: any MeterHandler
    private let openFiles: any MeterHandler

    /// Registers the process' series and keeps them up to date at each scrape.
    static func register(in registry: MetricsRegistry, version: String, fileLimit: Int) {
        registry.gauge("process_max_fds").set(Double(fileLimit))
        registry.makeMeter(label: "devicerpc_info", dimensions: [("version", version)]).set(Int64(1))
        registry.makeMeter(label: "process_start_time_seconds", dimensions: [])
            .set((Date().timeIntervalSince1970 * 1000).rounded() / 1000)
        let metrics = ProcessMetrics(
            cpuSeconds: registry.makeFloatingPointCounter(label: "process_cpu_seconds_total", dimensions: [])
                as? FloatingPointCounterSeries,
            residentBytes: registry.makeMeter(label: "process_resident_memory_bytes", dimensions: []),
            openFiles: registry.makeMeter(label: "process_open_fds", dimensions: []))
        registry.onScrape { metrics.collect() }
    }

    private func collect() {
        // proc(5): after the name in parentheses come the state and, as the 12th and 13th, user and system time in ticks.
        if let stat = try? String(contentsOfFile: "/proc/self/stat", encoding: .utf8),
            let name = stat.lastIndex(of: ")")
        {
            let fields = stat[name...].split(separator: " ")
            if fields.count > 13, let user = Double(fields[12]), let system = Double(fields[13]) {
                self.cpuSeconds?.set((user + system) / Double(sysconf(Int32(_SC_CLK_TCK))))
            }
        }
        // proc(5): the second number of statm is the resident set in pages.
        if let statm = try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8) {
            let pages = statm.split(separator: " ").dropFirst().first.flatMap { Int64($0) } ?? 0
            self.residentBytes.set(pages * Int64(sysconf(Int32(_SC_PAGESIZE))))
        }
        if let names = try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd") {
            self.openFiles.set(Int64(names.count))
        }
    }
}
