//! The main job, as the demo tells it, with a leak check at its end.

use anyhow::Result;
use stack_tests::rig::{Shape, nested};
use stack_tests::scenario::main_job;
use stack_tests::timeline::Timeline;

#[test]
fn guests_work_come_back_and_do_not_notice_our_deaths() -> Result<()> {
    nested(&Shape::default(), |host| {
        let mut timeline = Timeline::default();
        main_job::with_parapet(host, &mut timeline)?;
        timeline.print();
        main_job::clean_up(host)
    })
}
