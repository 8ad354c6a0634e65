"""The viewer: Streamlit pages over the reader. Never imports torch."""
