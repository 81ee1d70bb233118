//! End-to-end tests: the real binary, a real registry server, the real kernel.
//!
//! They need root and the packages that `scripts/test` installs, and fail without them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::format_collect, reason = "tests fail by panic")]

mod common;
mod conformance;
mod conformance_linux;
mod conformance_mounts;
mod conformance_process;
mod control;
mod cp;

mod archives;
mod archives_hostile;
mod attributes;
mod back;
mod back_random;
mod bad_input;
mod bundle;
mod callers;
mod debian_http;
mod debian_keys;
mod debian_scripts;
mod detached;
mod doctor;
mod drivers;
mod exec_options;
mod faults;
mod faults_push;
mod flow_classroom;
mod flow_demo;
mod flow_network_lab;
mod hostile_config;
mod hostile_content;
mod hostile_debian;
mod hostile_drivers;
mod hostile_layers;
mod hostile_run;
mod hostile_transfer;
mod killed;
mod limits;
mod mkimg;
mod network;
mod network_pasta;
mod output;
mod owners;
mod pull;
mod pull_along;
mod races;
mod registry_config;
mod registry_listing;
mod registry_login;
mod registry_upload;
mod rootfs;
mod run;
mod run_options;
mod seccomp_agent;
mod serve;
mod serve_conformance;
mod static_binary;
mod store;
mod systemd;
mod tour;
mod transfer;
mod unpack;
mod unprivileged;
