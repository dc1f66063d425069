import "./styles/fonts.css";
import "./styles/base.css";
import "./styles/experiment.css";
import "uplot/dist/uPlot.min.css";

import "./elements/copy-command";
import "./elements/live-figures";
import "./elements/live-status";
import "./elements/metric-chart";
import "./elements/expert-comb";
import "./elements/peer-table";
import "./elements/event-log";
