from .style import GREY as GREY
from .style import PALETTE as PALETTE
from .style import course_style as course_style
from .style import finding as finding
from .style import label_lines as label_lines
from .style import line_style as line_style
from .style import text_color as text_color
from .style import use_style as use_style
