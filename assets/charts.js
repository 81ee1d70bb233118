/*! Apache ECharts, https://echarts.apache.org, Copyright 2017-2025 The Apache Software Foundation.
    Apache License 2.0, https://www.apache.org/licenses/LICENSE-2.0. It includes ZRender (BSD-3-Clause) and tslib (0BSD). */
// The parts of ECharts that the page of `shipimg analyze` needs, and no others.
import { init, use } from "echarts/core";
import { TreemapChart } from "echarts/charts";
import { TooltipComponent } from "echarts/components";
import { SVGRenderer } from "echarts/renderers";

use([TreemapChart, TooltipComponent, SVGRenderer]);

export { init };
