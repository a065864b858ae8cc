// Package openmetrics holds histograms that are counted without a lock, and writes metrics as Prometheus and
// OpenMetrics have them (https://prometheus.io/docs/specs/om/open_metrics_spec/).
//
// The central idea: what is counted is counted where it happens, in plain atomic numbers; families, names and labels
// are put together only when somebody asks for them.
//
//	var dials openmetrics.Histogram
//	dials.Observe(time.Since(began))
//	err := openmetrics.Write(w, families, openmetrics.Text)
//
// The daemon gathers families, package api writes them. Nothing here knows what is counted.
package openmetrics
