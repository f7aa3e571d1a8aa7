"""The two looks. Accent is what is yours to change; green, amber and red are fits, tight and does not fit."""

from textual.theme import Theme

# What memory is taken by. None is green, amber or red, which mean fits, tight and does not fit.
_TERMS_DARK = {
    "term-weights": "#6f8fe0",
    "term-constants": "#9db4ee",
    "term-adapters": "#6cc7e8",
    "term-gradients": "#4fa3a8",
    "term-optimizer": "#a58bd8",
    "term-activations": "#d98bc0",
    "term-recomputation": "#b8709e",
    "term-loss": "#c7a3ea",
    "term-workspace": "#8d96ae",
    "term-reserved": "#6b748c",
    "term-context": "#565f78",
}
_TERMS_LIGHT = {
    "term-weights": "#2f5fc4",
    "term-constants": "#6d8edb",
    "term-adapters": "#00718f",
    "term-gradients": "#2a8a8f",
    "term-optimizer": "#7450b8",
    "term-activations": "#b03d8c",
    "term-recomputation": "#8c2f6e",
    "term-loss": "#9a68cc",
    "term-workspace": "#5d667c",
    "term-reserved": "#7c859a",
    "term-context": "#9aa2b5",
}

DARK = Theme(
    name="workbench-dark",
    primary="#7aa2f7",
    secondary="#a58bd8",
    accent="#6cc7e8",
    success="#8fce72",
    warning="#e5b567",
    error="#f27a8a",
    foreground="#d6dbe8",
    background="#14161d",
    surface="#191c25",
    panel="#232735",
    dark=True,
    variables={
        "muted": "#8d96ae",
        **_TERMS_DARK,
        "border": "#39405a",
        "border-blurred": "#2b3042",
        "block-cursor-background": "#2f4a66",
        "block-cursor-foreground": "#ffffff",
        "block-cursor-blurred-background": "#232c3d",
        "block-cursor-blurred-foreground": "#d6dbe8",
        "footer-background": "#191c25",
        "footer-key-foreground": "#6cc7e8",
        "input-cursor-background": "#6cc7e8",
        "scrollbar": "#333a50",
        "scrollbar-background": "#191c25",
        "scrollbar-corner-color": "#191c25",
    },
)

LIGHT = Theme(
    name="workbench-light",
    primary="#2f5fc4",
    secondary="#7450b8",
    accent="#00718f",
    success="#2f7d1f",
    warning="#946200",
    error="#b8233f",
    foreground="#1d2230",
    background="#f7f8fa",
    surface="#ffffff",
    panel="#e7eaf0",
    dark=False,
    variables={
        "muted": "#5d667c",
        **_TERMS_LIGHT,
        "border": "#b9c0d0",
        "border-blurred": "#d3d8e2",
        "block-cursor-background": "#cfe6ef",
        "block-cursor-foreground": "#0f1420",
        "block-cursor-blurred-background": "#e2edf2",
        "block-cursor-blurred-foreground": "#1d2230",
        "footer-background": "#e7eaf0",
        "footer-key-foreground": "#00718f",
        "scrollbar": "#c3c9d6",
        "scrollbar-background": "#eceff4",
        "scrollbar-corner-color": "#eceff4",
    },
)

THEMES = (DARK, LIGHT)
