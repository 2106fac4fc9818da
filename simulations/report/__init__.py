"""What came of a scenario as one page that opens from the disk, here and in ten years.

No script, no font, no picture and no address from anywhere: HTML, its style, and SVG that is
drawn here.  A plotting library would bring more bytes than all of this page, and a script in
it, for curves of sixty points.  The page says to the browser that it loads and runs nothing
(its Content-Security-Policy), so that the text of a scenario can't make it do so.
"""

from simulations.report.page import page

__all__ = ["page"]
