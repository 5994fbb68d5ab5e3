//! ns per packet of every path. `cargo bench`, or `cargo bench -- --quick` for a first look.

use criterion::{Criterion, Throughput};
use loxi_benches::{Bench, workloads};

fn main() {
    let mut criterion = Criterion::default().configure_from_args().without_plots();
    for workload in workloads() {
        let name = workload.name();
        let mut bench = match Bench::new(&workload) {
            Ok(bench) => bench,
            Err(error) => {
                eprintln!("{name}: {error}");
                std::process::exit(1);
            }
        };
        let mut group = criterion.benchmark_group(bench.backend());
        group.throughput(Throughput::Elements(1));
        group.bench_function(name.as_str(), |b| b.iter(|| bench.step()));
        group.finish();
        if let Err(error) = bench.check() {
            eprintln!("{name}, after: {error}");
            std::process::exit(1);
        }
    }
    criterion.final_summary();
}
