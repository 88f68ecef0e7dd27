//! Every file of `scenarios/` is a test: it must hold what it expects, and both sides' stats must be those that are
//! kept beside it.

use std::path::Path;

use eddy_sim::scenario::Scenario;
use eddy_sim::snapshot;
use eddy_sim::world::play;

fn holds(path: &Path) -> datatest_stable::Result<()> {
    let scenario = Scenario::load(path)?;
    let played = play(&scenario, scenario.seed);
    if let Some(failure) = &played.failure {
        let last: Vec<_> = failure.last.iter().map(ToString::to_string).collect();
        return Err(format!("at {:?}: {}\n{}", failure.at, failure.text, last.join("\n")).into());
    }
    for verdict in &played.verdicts {
        if !verdict.holds {
            return Err(format!("{}: {}", verdict.text, verdict.seen).into());
        }
    }
    insta::with_settings!({
        snapshot_path => Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios"),
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, {
        insta::assert_snapshot!(scenario.name(), snapshot::text(&scenario, &played));
    });
    Ok(())
}

datatest_stable::harness! {
    { test = holds, root = "../scenarios", pattern = r"\.yaml$" },
}
