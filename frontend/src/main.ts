import "./styles/fonts.css";
import "./styles/base.css";
import "uplot/dist/uPlot.min.css";
import "./styles/experiment.css";
import "./styles/charts.css";
import "./styles/tables.css";
import "./styles/comb.css";
import "./styles/account.css";
import "./styles/narrow.css";

import "./elements/copy-command";
import "./elements/live-figures";
import "./elements/live-status";
import "./elements/metric-chart";
import "./elements/expert-comb";
import "./elements/peer-table";
import "./elements/event-log";
